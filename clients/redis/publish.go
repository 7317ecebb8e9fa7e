// Publishes with history: publish REDIS_URL CHANNEL JSON…
//
// Needs github.com/redis/go-redis/v9. In a worker, use Publisher and publish.lua.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
)

//go:embed publish.lua
var source string

var script = redis.NewScript(source)

// Publisher publishes with history. Size and TTL (in milliseconds) are those of the gateway's [route.history].
type Publisher struct {
	Redis  *redis.Client
	Prefix string
	Size   int
	TTL    int
}

// Publish sends a JSON object and returns its epoch and offset.
func (p *Publisher) Publish(ctx context.Context, channel, json string) (string, int64, error) {
	base := p.Prefix + "{" + channel + "}"
	keys := []string{base + ":stream", base + ":meta"}
	result, err := script.Run(ctx, p.Redis, keys, channel, p.Size, p.TTL, json).Slice()
	if err != nil {
		return "", 0, err
	}
	epoch, _ := result[0].(string)
	offset, _ := result[1].(int64)
	return epoch, offset, nil
}

func main() {
	options, err := redis.ParseURL(os.Args[1])
	if err != nil {
		panic(err)
	}
	publisher := Publisher{Redis: redis.NewClient(options), Prefix: "tg:", Size: 1000, TTL: 300_000}
	for _, json := range os.Args[3:] {
		epoch, offset, err := publisher.Publish(context.Background(), os.Args[2], json)
		if err != nil {
			panic(err)
		}
		fmt.Println(epoch, offset)
	}
}
