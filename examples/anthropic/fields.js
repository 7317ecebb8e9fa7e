/** What the gateway passes on of a conversation: see `body` in gateway.toml. */
export const fields = (history) => ({ messages: history });
