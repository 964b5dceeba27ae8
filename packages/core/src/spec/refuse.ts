/** Reports a broken rule on `field`, unless it or one of the fields the rule reads has been reported already. */
export type Refuse = (broken: boolean, field: string, description: string, ...fields: string[]) => void;
