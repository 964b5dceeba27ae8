const CREDENTIALS = { AWS_ACCESS_KEY_ID: "k", AWS_SECRET_ACCESS_KEY: "s" };

/** The SDK's credentials, for services that check none. */
export function withCredentials(): void {
  const before = new Map(Object.keys(CREDENTIALS).map((name) => [name, process.env[name]]));
  beforeEach(() => Object.assign(process.env, CREDENTIALS));
  afterEach(() => {
    for (const [name, value] of before) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
  });
}
