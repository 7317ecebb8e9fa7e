// Aedes, an MQTT broker, over WebSockets.
import { createServer } from "node:http";
import { Aedes } from "aedes";
import { createWebSocketStream, WebSocketServer } from "ws";

const broker = await Aedes.createBroker();
const http = createServer();
const sockets = new WebSocketServer({ server: http, path: "/mqtt", handleProtocols: (offered) => offered.has("mqtt") && "mqtt" });
sockets.on("connection", (socket, request) => broker.handle(createWebSocketStream(socket), request));
http.listen(Number(process.env.PORT), "127.0.0.1");
