// The HTTP server of Go. The cases are those of script.py.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

const begin = `data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}` + "\n\n"
const end = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

// What was written has been sent before the server is killed, and keep-alives are this far apart.
const pause = 50 * time.Millisecond

func stream(response http.ResponseWriter, request *http.Request) {
	name := strings.TrimPrefix(request.URL.Path, "/stream/")
	if name == "early" {
		panic("failure")
	}
	response.Header().Set("Content-Type", "text/event-stream")
	write := func(piece string) {
		fmt.Fprint(response, piece)
		response.(http.Flusher).Flush()
	}
	write(begin)
	for name == "hang" {
		select {
		case <-request.Context().Done():
			fmt.Println("closed")
			return
		case <-time.After(pause):
			write(": ping\n\n")
		}
	}
	time.Sleep(pause)
	switch name {
	case "raise":
		panic("failure")
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	write(end)
}

func main() {
	http.HandleFunc("/stream/", stream)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
