package main

import (
	"context"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// node mounts volumes on one node.
type node struct {
	csi.UnimplementedNodeServer
	store *store
	name  string
}

func (n *node) NodeGetInfo(
	context.Context, *csi.NodeGetInfoRequest,
) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             n.name,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{topologyKey: n.name}},
	}, nil
}

func (n *node) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	var all []*csi.NodeServiceCapability
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	} {
		all = append(all, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: kind},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: all}, nil
}

func (n *node) NodeStageVolume(
	_ context.Context, request *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	file, err := n.file(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	place := request.GetStagingTargetPath()
	if err := n.stage(file, place); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (n *node) stage(file, place string) error {
	if mounted, err := isMounted(place); err != nil || mounted {
		return err
	}
	device, err := attach(file)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(place, 0o750); err != nil {
		return err
	}
	// A copy has the identity of its original, which may be mounted on this machine as well.
	if _, err := command("mount", "-t", "xfs", "-o", "nouuid,discard", device, place); err != nil {
		return err
	}
	// From now on it goes with its last mount, also if this node is lost.
	if _, err := command("losetup", "--detach", device); err != nil {
		return err
	}
	// A volume made from a smaller one has a smaller file system.
	_, err = command("xfs_growfs", place)
	return err
}

func (n *node) NodeUnstageVolume(
	ctx context.Context, request *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	if err := unmount(request.GetStagingTargetPath()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if file, err := n.store.volume(request.GetVolumeId()); err == nil {
		if err := waitUntilFree(ctx, file); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *node) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	place := request.GetTargetPath()
	mounted, err := isMounted(place)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if mounted {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := os.MkdirAll(place, 0o750); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	_, err = command("mount", "--bind", request.GetStagingTargetPath(), place)
	if err == nil && request.GetReadonly() {
		_, err = command("mount", "-o", "remount,bind,ro", place)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(request.GetTargetPath()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *node) NodeExpandVolume(
	_ context.Context, request *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	file, err := n.file(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	device, err := loopOf(file)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if device == "" {
		return nil, status.Error(codes.FailedPrecondition, "it is not mounted on this node")
	}
	if _, err := command("losetup", "--set-capacity", device); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if _, err := command("xfs_growfs", request.GetVolumePath()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	size, err := sizeOf(file)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}

func (n *node) NodeGetVolumeStats(
	_ context.Context, request *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	var found unix.Statfs_t
	if err := unix.Statfs(request.GetVolumePath(), &found); err != nil {
		return nil, absentOr(err)
	}
	block := found.Bsize
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(found.Blocks) * block,
			Available: int64(found.Bavail) * block,
			Used:      int64(found.Blocks-found.Bfree) * block,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(found.Files),
			Available: int64(found.Ffree),
			Used:      int64(found.Files - found.Ffree),
		},
	}}, nil
}

func (n *node) file(id string) (string, error) {
	file, err := n.store.volume(id)
	if err != nil {
		return "", status.Error(codes.NotFound, err.Error())
	}
	if _, err := sizeOf(file); err != nil {
		return "", absentOr(err)
	}
	return file, nil
}
