package main

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// controller makes, grows, copies and deletes the files of volumes.
type controller struct {
	csi.UnimplementedControllerServer
	store *store
	// One request at a time: all of them take milliseconds.
	turn sync.Mutex
}

func (c *controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	var all []*csi.ControllerServiceCapability
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	} {
		all = append(all, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{
				Rpc: &csi.ControllerServiceCapability_RPC{Type: kind},
			},
		})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

func (c *controller) CreateVolume(
	_ context.Context, request *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if request.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume needs a name")
	}
	if err := check(request.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	size, err := sizeWanted(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	place := nodeWanted(request.GetAccessibilityRequirements())
	if place == "" {
		return nil, status.Error(codes.InvalidArgument,
			"no node is named: the StorageClass needs volumeBindingMode WaitForFirstConsumer")
	}
	id := place + "/" + request.GetName()
	file, err := c.store.volume(id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	made, err := sizeOf(file)
	switch {
	case err == nil && made < size:
		return nil, status.Errorf(codes.AlreadyExists, "%s has %d bytes, not %d", id, made, size)
	case err == nil:
		size = made
	case errors.Is(err, os.ErrNotExist):
		if err := c.fill(file, size, request.GetVolumeContentSource()); err != nil {
			return nil, err
		}
	default:
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           id,
		CapacityBytes:      size,
		ContentSource:      request.GetVolumeContentSource(),
		AccessibleTopology: []*csi.Topology{{Segments: map[string]string{topologyKey: place}}},
	}}, nil
}

// fill makes the file of a volume: empty, or with what a snapshot or another volume has.
func (c *controller) fill(file string, size int64, source *csi.VolumeContentSource) error {
	var from string
	var err error
	switch {
	case source == nil:
		return internal(create(file, size))
	case source.GetSnapshot() != nil:
		from, err = c.store.snapshot(source.GetSnapshot().GetSnapshotId())
	default:
		from, err = c.store.volume(source.GetVolume().GetVolumeId())
	}
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	held, err := sizeOf(from)
	if errors.Is(err, os.ErrNotExist) {
		return status.Error(codes.NotFound, "the source does not exist")
	}
	if err != nil {
		return internal(err)
	}
	if held > size {
		return status.Errorf(codes.OutOfRange, "the source has %d bytes, more than %d", held, size)
	}
	return internal(whileFrozen(from, func() error { return clone(from, file, size) }))
}

func (c *controller) DeleteVolume(
	ctx context.Context, request *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	file, err := c.store.volume(request.GetVolumeId())
	if err != nil {
		// What cannot be ours is not there.
		return &csi.DeleteVolumeResponse{}, nil
	}
	// Its claim may be gone before kubelet has unmounted it.
	if err := waitUntilFree(ctx, file); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	device, err := loopOf(file)
	if err == nil && device != "" {
		return nil, status.Errorf(codes.FailedPrecondition, "it is still in use as %s", device)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *controller) ControllerExpandVolume(
	_ context.Context, request *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	size, err := sizeWanted(request.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	file, err := c.store.volume(request.GetVolumeId())
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err := grow(file, size); err != nil {
		return nil, absentOr(err)
	}
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes: size, NodeExpansionRequired: true,
	}, nil
}

func (c *controller) CreateSnapshot(
	_ context.Context, request *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	from, err := c.store.volume(request.GetSourceVolumeId())
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	file, err := c.store.snapshot(request.GetName())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	origin := file + ".source"
	recorded, err := os.ReadFile(origin)
	switch {
	case err == nil && string(recorded) != request.GetSourceVolumeId():
		return nil, status.Errorf(codes.AlreadyExists, "%s is one of %s", request.GetName(), recorded)
	case errors.Is(err, os.ErrNotExist):
		// The record of its origin comes last: without it, the copy is made again.
		copied := whileFrozen(from, func() error { return clone(from, file, 0) })
		if copied != nil {
			return nil, absentOr(copied)
		}
		id := []byte(request.GetSourceVolumeId())
		if err := os.WriteFile(origin, id, 0o600); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	made, err := os.Stat(file)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.CreateSnapshotResponse{Snapshot: &csi.Snapshot{
		SnapshotId:     request.GetName(),
		SourceVolumeId: request.GetSourceVolumeId(),
		SizeBytes:      made.Size(),
		CreationTime:   timestamppb.New(made.ModTime()),
		ReadyToUse:     true,
	}}, nil
}

func (c *controller) DeleteSnapshot(
	_ context.Context, request *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	file, err := c.store.snapshot(request.GetSnapshotId())
	if err != nil {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	for _, part := range []string{file + ".source", file} {
		if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c *controller) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	file, err := c.store.volume(request.GetVolumeId())
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if _, err := sizeOf(file); err != nil {
		return nil, absentOr(err)
	}
	if err := check(request.GetVolumeCapabilities()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeCapabilities: request.GetVolumeCapabilities(),
		},
	}, nil
}

// check refuses what the driver cannot: disks without a file system, other file systems, and use
// by several nodes.
func check(capabilities []*csi.VolumeCapability) error {
	for _, capability := range capabilities {
		if capability.GetBlock() != nil {
			return status.Error(codes.InvalidArgument, "volumes without a file system cannot be made")
		}
		kind := capability.GetMount().GetFsType()
		if kind != "" && kind != "xfs" {
			return status.Errorf(codes.InvalidArgument, "file systems are xfs, not %s", kind)
		}
		switch capability.GetAccessMode().GetMode() {
		case csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
			csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
			csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:
			return status.Error(codes.InvalidArgument, "a volume is used by one node")
		}
	}
	return nil
}

// sizeWanted rounds up to whole MiB.
func sizeWanted(wanted *csi.CapacityRange) (int64, error) {
	const unit = 1 << 20
	size := max((wanted.GetRequiredBytes()+unit-1)/unit*unit, smallest)
	if limit := wanted.GetLimitBytes(); limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "the least is %d bytes, not %d", size, limit)
	}
	return size, nil
}

func nodeWanted(wanted *csi.TopologyRequirement) string {
	for _, topology := range append(wanted.GetPreferred(), wanted.GetRequisite()...) {
		if node := topology.GetSegments()[topologyKey]; node != "" {
			return node
		}
	}
	return ""
}

func internal(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Internal, err.Error())
}

func absentOr(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return status.Error(codes.NotFound, "it does not exist")
	}
	return status.Error(codes.Internal, err.Error())
}
