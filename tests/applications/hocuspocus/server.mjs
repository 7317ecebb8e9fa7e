// Hocuspocus, which checks a token in its own protocol.
import { Server } from "@hocuspocus/server";

const server = new Server({
  quiet: true,
  address: "127.0.0.1",
  port: Number(process.env.PORT),
  async onAuthenticate({ token }) {
    if (token !== "open") throw new Error("wrong token");
  },
});
await server.listen();
