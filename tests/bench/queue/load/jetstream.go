package main

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream publishes to a stream in a file and waits for its PubAck.
func jetStream(ctx context.Context, address string, first bool) (send, error) {
	connection, err := nats.Connect("nats://" + address)
	if err != nil {
		return nil, err
	}
	client, err := jetstream.New(connection)
	if err != nil {
		return nil, err
	}
	if first {
		stream := jetstream.StreamConfig{Name: "bench", Subjects: []string{"bench"}, Storage: jetstream.FileStorage}
		if _, err := client.CreateOrUpdateStream(ctx, stream); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		_, err := client.Publish(ctx, "bench", body)
		return err
	}, nil
}
