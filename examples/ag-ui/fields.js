/** The conversation in the form of AG-UI's messages: see `body` in gateway.toml. */
export const fields = (history) => ({
  run: crypto.randomUUID(),
  messages: history.map(({ role, content }, at) => ({ id: String(at), role, content })),
});
