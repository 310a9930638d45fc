// SPDX-License-Identifier: Apache-2.0

// Renders a chart to standard output, like `helm template`, for tests that have no Helm.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"

	"thruway/tests/chart"
)

func main() {
	options := chart.Options{Values: map[string]any{}}
	flag.StringVar(&options.Folder, "chart", "charts/thruway", "folder of the chart")
	flag.StringVar(&options.Namespace, "namespace", "kube-system", "namespace that it is installed in")
	flag.StringVar(&options.KubeVersion, "kube-version", "", "Kubernetes that it is rendered for")
	flag.Func("values", "YAML file with values; later ones win", func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return yaml.Unmarshal(text, &options.Values)
	})
	flag.Func("set", "KEY=VALUE, as Helm reads it", func(text string) error {
		return strvals.ParseInto(text, options.Values)
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "thruway-chart: %s: no arguments are taken (see --help)\n", flag.Arg(0))
		os.Exit(2)
	}
	manifest, err := chart.Render(options)
	if err != nil {
		fmt.Fprintf(os.Stderr, "thruway-chart: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
		os.Exit(1)
	}
	fmt.Print(manifest)
}
