// Package validate holds the container files against the code that will read them: compose's own loader with its schema, and Kubernetes' own types. It also asks the
// code of Docker's local volume driver what compose.yaml says of it. It is a module of its own, so that all this is not in hearth's.
package validate

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/volume/local"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestComposeFileHasFourServersOnTheHostsRAMDisk(t *testing.T) {
	path, err := filepath.Abs("../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: filepath.Dir(path), ConfigFiles: []types.ConfigFile{{Filename: path}},
	}, func(o *loader.Options) { o.SetProjectName("hearth", true) })
	if err != nil {
		t.Fatal(err)
	}
	sources, ports := map[string]bool{}, map[string]bool{}
	for name, s := range project.Services {
		if len(s.Volumes) != 1 || s.Volumes[0].Type != "bind" || s.Volumes[0].Target != "/cache" || !s.ReadOnly {
			t.Errorf("%s: %+v", name, s.Volumes)
			continue
		}
		sources[s.Volumes[0].Source] = true
		ports[s.Ports[0].Published] = true
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(sources) != 4 || len(ports) != 4 {
		t.Errorf("directories %v, ports %v, want 4 of each", sources, ports)
	}
}

func TestKubernetesFileIsOfItsTypes(t *testing.T) {
	text, err := os.ReadFile("../kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(text, []byte("\n---\n"))
	if len(documents) != 2 {
		t.Fatalf("%d documents", len(documents))
	}
	var service corev1.Service
	var set appsv1.StatefulSet
	if err := yaml.UnmarshalStrict(documents[0], &service); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(documents[1], &set); err != nil {
		t.Fatal(err)
	}
	spec := set.Spec.Template.Spec
	if set.Spec.ServiceName != service.Name || *set.Spec.Replicas != 4 || spec.Volumes[0].HostPath == nil || !strings.HasPrefix(spec.Volumes[0].HostPath.Path, "/dev/shm/") {
		t.Errorf("%+v", set.Spec)
	}
	for key, value := range set.Spec.Selector.MatchLabels {
		if set.Spec.Template.Labels[key] != value || service.Spec.Selector[key] != value {
			t.Errorf("label %s=%s is not everywhere", key, value)
		}
	}
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		if m := c.VolumeMounts[0]; m.Name != spec.Volumes[0].Name || m.MountPath != "/cache" || m.SubPathExpr != "$(POD)" || c.Env[0].Name != "POD" {
			t.Errorf("%s: %+v", c.Name, m)
		}
	}
}

// What compose.yaml says of named volumes, by the code of the daemon: a container that starts mounts its volume, one that ends unmounts it.
func TestNamedRAMDiskIsEmptyAfterItsLastContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts, which takes root")
	}
	driver, err := local.New(t.TempDir(), idtools.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	for _, held := range []bool{false, true} {
		v, err := driver.Create(map[bool]string{false: "alone", true: "held"}[held], map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0700,uid=65532"})
		if err != nil {
			t.Fatal(err)
		}
		dir, err := v.Mount("first")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "slab"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if held {
			if _, err := v.Mount("holder"); err != nil {
				t.Fatal(err)
			}
		}
		if err := v.Unmount("first"); err != nil {
			t.Fatal(err)
		}
		if dir, err = v.Mount("second"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "slab")); (err == nil) != held {
			t.Errorf("held by another container: %v; the file after the replacement: %v", held, err)
		}
		v.Unmount("second")
		if held {
			v.Unmount("holder")
		}
	}
}
