package stack

import (
	"fmt"
	"path/filepath"

	"podlane/test/stack/internal/daemon"
	"podlane/test/stack/stackenv"
)

// part is a daemon of the stack and what it needs of the machine.
type part struct {
	daemon.Daemon
	// listens are the addresses it will listen on.
	listens []string
}

// programs are where the daemons' programs lie.
type programs struct {
	kube, etcd, vault, minio string
	dir                      string // of the checkout's own
}

// The parts' names, in the order in which they start.
const (
	partEtcd       = "etcd"
	partAPIServer  = "kube-apiserver"
	partContainerd = "containerd"
	partRegistry   = "registry"
	partVault      = "vault"
	partS3         = "minio"
	partSTS        = "sts"
	partManager    = "kube-controller-manager"
	partScheduler  = "kube-scheduler"
	partKubelet    = "kubelet"
)

// parts are the stack's daemons in the order in which they start. To add one:
// an entry here, its ports in stackenv, and what to wait for in up.go.
func parts(s stackenv.Stack, p programs) []part {
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	bridge := func(port int) string { return fmt.Sprintf("%s:%d", s.BridgeIP, port) }
	etcdClient, etcdPeer := "http://"+local(s.Ports.EtcdClient), "http://"+local(s.Ports.EtcdPeer)
	list := []part{
		{
			Daemon: daemon.Daemon{
				Name: partEtcd, Path: p.etcd,
				Args: []string{
					"--data-dir=" + filepath.Join(s.Dir, "etcd"),
					"--listen-client-urls=" + etcdClient, "--advertise-client-urls=" + etcdClient,
					"--listen-peer-urls=" + etcdPeer, "--initial-advertise-peer-urls=" + etcdPeer,
					"--initial-cluster=default=" + etcdPeer,
					// The data is thrown away with the stack: a power cut may eat it.
					"--unsafe-no-fsync",
					"--log-level=warn",
				},
			},
			listens: []string{local(s.Ports.EtcdClient), local(s.Ports.EtcdPeer)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partAPIServer, Path: p.kube,
				Args: []string{
					"kube-apiserver",
					"--etcd-servers=" + etcdClient,
					"--bind-address=" + s.BridgeIP, "--advertise-address=" + s.BridgeIP,
					fmt.Sprintf("--secure-port=%d", s.Ports.APIServer),
					"--service-cluster-ip-range=10.43.0.0/16", "--endpoint-reconciler-type=none",
					"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
					"--client-ca-file=" + pkiFile(s, "ca.crt"),
					"--tls-cert-file=" + pkiFile(s, "apiserver.crt"), "--tls-private-key-file=" + pkiFile(s, "apiserver.key"),
					"--service-account-issuer=https://kubernetes.default.svc",
					"--service-account-key-file=" + pkiFile(s, "sa.pub"), "--service-account-signing-key-file=" + pkiFile(s, "sa.key"),
					"--kubelet-certificate-authority=" + pkiFile(s, "ca.crt"),
					"--kubelet-client-certificate=" + pkiFile(s, "kubelet-client.crt"), "--kubelet-client-key=" + pkiFile(s, "kubelet-client.key"),
					"--kubelet-preferred-address-types=InternalIP",
					"--audit-policy-file=" + configFile(s, "audit-policy.yaml"), "--audit-log-path=" + s.AuditLog,
					"--audit-log-maxsize=200", "--audit-log-maxbackup=3",
				},
				Files: []string{configFile(s, "audit-policy.yaml"), pkiFile(s, "apiserver.crt"), pkiFile(s, "sa.pub")},
			},
			listens: []string{bridge(s.Ports.APIServer)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partContainerd, Path: "/usr/bin/containerd",
				Args:  []string{"--config", configFile(s, "containerd.toml")},
				Files: []string{configFile(s, "containerd.toml")},
			},
		},
		{
			Daemon: daemon.Daemon{
				Name: partRegistry, Path: filepath.Join(p.dir, "registry"),
				Args:  []string{s.RegistryAddress, stackenv.RegistryUser, s.RegistryPasswordFile},
				Files: []string{filepath.Join(p.dir, "registry"), s.RegistryPasswordFile},
			},
			listens: []string{s.RegistryAddress},
		},
		{
			Daemon: daemon.Daemon{
				Name: partVault, Path: p.vault,
				Args: []string{"-listen", bridge(s.Ports.Vault), "-data", filepath.Join(vaultDir(s), "data")},
				Env:  []string{"GOMEMLIMIT=200MiB"},
			},
			listens: []string{bridge(s.Ports.Vault)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partS3, Path: p.minio,
				Args: []string{"server", "--quiet", "--address", bridge(s.Ports.S3), s3Dir(s)},
				Env: []string{
					"MINIO_ROOT_USER=" + stackenv.S3RootUser, "MINIO_ROOT_PASSWORD_FILE=" + s.S3RootPasswordFile,
					"MINIO_REGION_NAME=" + stackenv.S3Region,
					"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_SCANNER_SPEED=slowest",
					// Without this it refuses a folder on the machine's own disk.
					"MINIO_CI_CD=on",
					"GOMEMLIMIT=300MiB",
				},
				Files: []string{s.S3RootPasswordFile},
			},
			listens: []string{bridge(s.Ports.S3)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partSTS, Path: filepath.Join(p.dir, "sts"),
				Args:  []string{bridge(s.Ports.STS), s.S3Address},
				Files: []string{filepath.Join(p.dir, "sts")},
			},
			listens: []string{bridge(s.Ports.STS)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partManager, Path: p.kube,
				Args: []string{
					"kube-controller-manager",
					"--kubeconfig=" + kubeconfig(s, "controller-manager"), "--use-service-account-credentials",
					"--bind-address=" + s.BridgeIP, fmt.Sprintf("--secure-port=%d", s.Ports.ControllerManager),
					"--service-account-private-key-file=" + pkiFile(s, "sa.key"), "--root-ca-file=" + pkiFile(s, "ca.crt"),
					"--cluster-signing-cert-file=" + pkiFile(s, "ca.crt"), "--cluster-signing-key-file=" + pkiFile(s, "ca.key"),
					"--leader-elect=false",
					// With the default of 20 requests a second, its controllers take
					// 5 s to start.
					"--kube-api-qps=200", "--kube-api-burst=400",
					"--flex-volume-plugin-dir=" + filepath.Join(s.Dir, "kubelet", "plugins-exec"),
				},
				Files: []string{kubeconfig(s, "controller-manager"), pkiFile(s, "sa.key")},
			},
			listens: []string{bridge(s.Ports.ControllerManager)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partScheduler, Path: p.kube,
				Args: []string{
					"kube-scheduler", "--kubeconfig=" + kubeconfig(s, "scheduler"),
					"--bind-address=" + s.BridgeIP, fmt.Sprintf("--secure-port=%d", s.Ports.Scheduler),
					"--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400",
				},
				Files: []string{kubeconfig(s, "scheduler")},
			},
			listens: []string{bridge(s.Ports.Scheduler)},
		},
		{
			Daemon: daemon.Daemon{
				Name: partKubelet, Path: p.kube,
				Args: []string{
					"kubelet", "--config=" + configFile(s, "kubelet.yaml"), "--kubeconfig=" + kubeconfig(s, "kubelet"),
					"--hostname-override=" + stackenv.NodeName, "--node-ip=" + s.BridgeIP,
					"--root-dir=" + filepath.Join(s.Dir, "kubelet"),
				},
				Files: []string{configFile(s, "kubelet.yaml"), kubeconfig(s, "kubelet"), pkiFile(s, "kubelet.crt")},
			},
			listens: []string{bridge(s.Ports.Kubelet), bridge(s.Ports.KubeletHealth)},
		},
	}
	for i := range list {
		d := &list[i].Daemon
		d.PidFile = filepath.Join(s.RunDir, d.Name+".pid")
		d.LogFile = filepath.Join(s.LogDir, d.Name+".log")
		// Nothing of the caller's shell, such as a proxy, may decide how a
		// cluster works.
		d.Env = append(d.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
	}
	return list
}

// find returns the part of the given name, which is one of the constants.
func find(list []part, name string) part {
	for _, p := range list {
		if p.Name == name {
			return p
		}
	}
	panic("no part " + name)
}
