/** Defaults overlaid with what was given. The defaults hold every key of T that T requires; explicit undefined counts as absent. */
export function fill<T extends object>(defaults: Partial<T>, given: { readonly [K in keyof T]?: T[K] | undefined } = {}): T {
  const present = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(present) } as T;
}
