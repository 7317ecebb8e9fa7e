// The HTTP server of the JDK. The cases are those of script.py.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

class Jdk {
    static final String BEGIN =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
    static final String END =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    // What was written has been sent before the server is killed, and keep-alives are this far apart, in milliseconds.
    static final int PAUSE = 50;

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        // Only a body that its handler closes itself shows a failure as one: leaving a `try` with a resource closes it.
        server.createContext("/stream/", exchange -> stream(exchange).close());
        server.createContext("/resource/", exchange -> {
            try (exchange) {
                stream(exchange);
            }
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }

    static OutputStream stream(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        String name = path.substring(path.lastIndexOf('/') + 1);
        if (name.equals("early")) throw new IllegalStateException("failure");
        exchange.getResponseHeaders().set("Content-Type", "text/event-stream");
        exchange.sendResponseHeaders(200, 0);
        OutputStream body = exchange.getResponseBody();
        write(body, BEGIN);
        try {
            while (name.equals("hang")) write(body, ": ping\n\n");
        } catch (IOException gone) {
            System.out.println("closed");
            throw gone;
        }
        if (name.equals("raise")) throw new IllegalStateException("failure");
        if (name.equals("kill")) Runtime.getRuntime().halt(1);
        write(body, END);
        return body;
    }

    static void write(OutputStream body, String piece) throws IOException {
        body.write(piece.getBytes());
        body.flush();
        try {
            Thread.sleep(PAUSE);
        } catch (InterruptedException interrupted) {
            throw new IOException(interrupted);
        }
    }
}
