// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// chart is the objects that our Helm chart makes with some values: "config.sock=all".
func chart(t *testing.T, values ...string) []*unstructured.Unstructured {
	t.Helper()
	arguments := []string{"-chart", "../../charts/thruway", "-namespace", agentSpace}
	for _, value := range values {
		arguments = append(arguments, "-set", value)
	}
	text, err := output(exec.Command("../../build/bin/thruway-chart", arguments...))
	must(t, err)
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var objects []*unstructured.Unstructured
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		must(t, err)
		object := &unstructured.Unstructured{}
		must(t, yaml.UnmarshalStrict(document, &object.Object))
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// apply has the API server take objects, or with meta.DryRunAll only say whether it would. It refuses fields that it
// does not know.
func (c *cluster) apply(objects []*unstructured.Unstructured, dryRun ...string) {
	c.t.Helper()
	client, err := dynamic.NewForConfig(c.config())
	must(c.t, err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	force := true
	options := meta.PatchOptions{
		FieldManager: "helm", Force: &force, DryRun: dryRun, FieldValidation: meta.FieldValidationStrict}
	for _, object := range objects {
		kind := object.GroupVersionKind()
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		must(c.t, err)
		text, err := object.MarshalJSON()
		must(c.t, err)
		_, err = client.Resource(mapping.Resource).Namespace(object.GetNamespace()).
			Patch(background, object.GetName(), types.ApplyPatchType, text, options)
		if err != nil {
			c.t.Fatalf("%s %s: %v", kind.Kind, object.GetName(), err)
		}
	}
}
