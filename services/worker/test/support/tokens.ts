/** Makes the fake engine wait for the file that {@link HOLD_VARIABLE} names. */
export const HELD_TOKEN = 250;
/** Makes the fake engine fail. */
export const BROKEN_TOKEN = 251;
/** Ends the compute thread. */
export const CRASH_TOKEN = 252;

/** Read by compute threads that start after it is set. */
export const HOLD_VARIABLE = "TEST_HOLD_UNTIL_FILE";
