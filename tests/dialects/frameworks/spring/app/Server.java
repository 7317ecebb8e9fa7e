// Spring WebFlux on Reactor Netty. The cases are those of script.py.
package app;

import java.time.Duration;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.MediaType;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;
import reactor.core.publisher.Flux;

@SpringBootApplication
@RestController
public class Server {
    static final String BEGIN = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}";
    static final String END = "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
    // What was written has been sent before the server is killed, and keep-alives are this far apart.
    static final Duration PAUSE = Duration.ofMillis(50);

    public static void main(String[] arguments) {
        SpringApplication.run(Server.class, arguments);
    }

    @PostMapping(path = "/stream/{name}", produces = MediaType.TEXT_EVENT_STREAM_VALUE)
    Flux<ServerSentEvent<String>> stream(@PathVariable("name") String name) {
        if (name.equals("early")) return Flux.error(new IllegalStateException("failure"));
        var rest = name.equals("hang")
            ? Flux.interval(PAUSE).map(tick -> ServerSentEvent.<String>builder().comment("ping").build())
            : Flux.defer(() -> finish(name)).map(Server::event).delaySubscription(PAUSE);
        return Flux.concat(Flux.just(event(BEGIN)), rest).doOnCancel(() -> System.out.println("closed"));
    }

    static Flux<String> finish(String name) {
        if (name.equals("raise")) return Flux.error(new IllegalStateException("failure"));
        if (name.equals("kill")) Runtime.getRuntime().halt(1);
        return Flux.just(END, "[DONE]");
    }

    static ServerSentEvent<String> event(String data) {
        return ServerSentEvent.builder(data).build();
    }
}
