// load: a client that keeps to its schedule whatever happens, and a server that stops well.
//
// Both are ordinary Go: net/http for HTTP/1.1 and HTTP/2 without TLS, grpc-go for gRPC. Nothing here
// knows of a sidecar.
package main

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/lab.Orders/Place"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		os.Exit(client(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(serve(os.Args[2:]))
	}
	fmt.Fprintln(os.Stderr, "usage: load client|serve …")
	os.Exit(2)
}

// The service without a compiler of .proto files: a text in, a text out.
type orders interface {
	Place(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

var ordersDesc = grpc.ServiceDesc{
	ServiceName: "lab.Orders",
	HandlerType: (*orders)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Place",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return srv.(orders).Place(ctx, in)
		},
	}},
}
