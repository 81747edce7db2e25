package main

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// redisStream adds to a stream; with `appendfsync always` the answer comes after the flush.
func redisStream(ctx context.Context, address string, _ bool) (send, error) {
	client := redis.NewClient(&redis.Options{Addr: address, PoolSize: 1})
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, err
	}
	entry := &redis.XAddArgs{Stream: "bench", Values: []any{"body", body}}
	return func(ctx context.Context) error { return client.XAdd(ctx, entry).Err() }, nil
}
