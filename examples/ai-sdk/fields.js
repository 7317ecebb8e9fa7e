/** The conversation in the form of the AI SDK's UI messages: see `body` in gateway.toml. */
export const fields = (history) => ({
  messages: history.map(({ role, content }, at) => ({ id: String(at), role, parts: [{ type: "text", text: content }] })),
});
