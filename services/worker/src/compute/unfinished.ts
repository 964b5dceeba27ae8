/** The answer of a call whose work a device still does. */
export class Unfinished<Response> {
  /** Ends when the work is done. Throws what went wrong with it. */
  readonly wait: () => Response;

  constructor(wait: () => Response) {
    this.wait = wait;
  }
}
