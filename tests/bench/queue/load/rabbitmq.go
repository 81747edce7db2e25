package main

import (
	"context"
	"errors"

	"github.com/rabbitmq/amqp091-go"
)

// rabbitMQ publishes persistent messages to a quorum queue and waits for the publisher's confirm.
func rabbitMQ(_ context.Context, address string, first bool) (send, error) {
	connection, err := amqp091.Dial("amqp://guest:guest@" + address + "/")
	if err != nil {
		return nil, err
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if first {
		quorum := amqp091.Table{"x-queue-type": "quorum"}
		if _, err := channel.QueueDeclare("bench", true, false, false, false, quorum); err != nil {
			return nil, err
		}
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	message := amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: body}
	return func(ctx context.Context) error {
		confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", "bench", false, false, message)
		if err != nil {
			return err
		}
		acknowledged, err := confirm.WaitContext(ctx)
		if err == nil && !acknowledged {
			err = errors.New("the broker refused a message")
		}
		return err
	}, nil
}
