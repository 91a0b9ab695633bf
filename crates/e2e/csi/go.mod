module matriarch.dev/csi

go 1.24.0

require (
	github.com/container-storage-interface/spec v1.11.0
	golang.org/x/sys v0.36.0
	google.golang.org/grpc v1.75.0
	google.golang.org/protobuf v1.36.8
	k8s.io/kubelet v0.34.4
)

require (
	golang.org/x/net v0.43.0 // indirect
	golang.org/x/text v0.28.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250818200422-3122310a409c // indirect
)
