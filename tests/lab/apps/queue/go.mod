module tidegate.dev/lab/queue

go 1.26.0
