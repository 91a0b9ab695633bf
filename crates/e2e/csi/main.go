// Program csi is the storage driver of the test cluster. Volumes are image files with a file system
// of their own, so that they can really be full, grow while they are mounted, and be copied in an
// instant; all files lie on one file system that can share blocks between files (xfs).
//
// `csi controller` makes, grows, copies and deletes files; `csi node` mounts them on one node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// driverName is how StorageClasses name the driver.
	driverName = "csi.matriarch.test"
	// topologyKey is the label of a node that says where volumes can be used.
	topologyKey = driverName + "/node"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatalf("csi: %v", err)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: csi controller|node --endpoint SOCKET --directory DIRECTORY …")
	}
	role := arguments[0]
	flags := flag.NewFlagSet(role, flag.ContinueOnError)
	endpoint := flags.String("endpoint", "", "the socket to serve")
	directory := flags.String("directory", "", "where the files of all volumes lie")
	nodeName := flags.String("node", "", "the node that volumes are mounted on")
	kubelet := flags.String("registration", "", "the socket by which kubelet finds the driver")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	if *endpoint == "" || *directory == "" {
		return errors.New("--endpoint and --directory are needed")
	}
	files := &store{directory: *directory}
	server := grpc.NewServer(grpc.UnaryInterceptor(logErrors))
	csi.RegisterIdentityServer(server, identity{})
	switch role {
	case "controller":
		csi.RegisterControllerServer(server, &controller{store: files})
	case "node":
		if *nodeName == "" || *kubelet == "" {
			return errors.New("--node and --registration are needed")
		}
		csi.RegisterNodeServer(server, &node{store: files, name: *nodeName})
	default:
		return fmt.Errorf("there is no role %q: controller or node", role)
	}
	failed := make(chan error, 2)
	if err := serve(server, *endpoint, failed); err != nil {
		return err
	}
	if role == "node" {
		registrar := grpc.NewServer()
		registration.RegisterRegistrationServer(registrar, &registrationServer{endpoint: *endpoint})
		if err := serve(registrar, *kubelet, failed); err != nil {
			return err
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err := <-failed:
		return err
	case <-signals:
		server.GracefulStop()
		return nil
	}
}

func serve(server *grpc.Server, socket string, failed chan<- error) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() { failed <- server.Serve(listener) }()
	return nil
}

func logErrors(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	answer, err := handler(ctx, request)
	if err != nil {
		log.Printf("%s: %v (%v)", info.FullMethod, err, request)
	}
	return answer, err
}

// registrationServer tells kubelet of the driver.
type registrationServer struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r *registrationServer) GetInfo(
	context.Context, *registration.InfoRequest,
) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              driverName,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *registrationServer) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("csi: kubelet does not take the driver: %s", status.Error)
	}
	log.Print("kubelet has taken the driver")
	return &registration.RegistrationStatusResponse{}, nil
}
