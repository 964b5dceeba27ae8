/** Makes the fake engine take its time. */
export const SLOW_TOKEN = 250;
/** Makes the fake engine fail. */
export const BROKEN_TOKEN = 251;
/** Ends the compute thread. */
export const CRASH_TOKEN = 252;
