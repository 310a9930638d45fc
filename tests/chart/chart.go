// SPDX-License-Identifier: Apache-2.0

// Package chart renders charts/thruway as Helm does.
package chart

import (
	"fmt"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
)

// Options say what is to be rendered; empty ones are Helm's own.
type Options struct {
	Folder      string
	Namespace   string
	KubeVersion string
	Values      map[string]any
}

// Render returns the chart's objects as one YAML stream, like `helm template`, with the values checked by the schema.
func Render(options Options) (string, error) {
	loaded, err := loader.Load(options.Folder)
	if err != nil {
		return "", err
	}
	install := action.NewInstall(&action.Configuration{})
	install.ReleaseName = "thruway"
	install.Namespace = options.Namespace
	install.ClientOnly = true
	install.DryRun = true
	version := options.KubeVersion
	if version == "" {
		version = "v1.34.0"
	}
	if install.KubeVersion, err = chartutil.ParseKubeVersion(version); err != nil {
		return "", fmt.Errorf("%s is no version of Kubernetes: %w", version, err)
	}
	release, err := install.Run(loaded, options.Values)
	if err != nil {
		return "", err
	}
	return release.Manifest, nil
}
