import type { AttachRequestSchema, MessageInitShape } from "@segue/protocol";

/** What a worker says on its stream: one case of AttachRequest. */
export type AttachMessage = NonNullable<MessageInitShape<typeof AttachRequestSchema>["message"]>;
