// A chat with rooms. Everything has its default, so clients begin with polling and change to a WebSocket.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => response.end("the page"));
const io = new Server(http);

io.on("connection", (socket) => {
  socket.on("join", (room, joined) => {
    socket.join(room);
    joined([...socket.rooms].includes(room));
  });
  socket.on("say", (room, text) => io.to(room).emit("said", room, text));
  socket.on("double", (bytes, answer) => answer(Buffer.concat([bytes, bytes])));
  socket.on("leave me", () => socket.disconnect());
});
io.of("/admin").use((socket, next) => {
  next(socket.handshake.auth.password === "open" ? undefined : new Error("wrong password"));
});

http.listen(Number(process.env.PORT), "127.0.0.1");
