// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTheAPIServerTakesTheChartWithAllItsValues(t *testing.T) {
	c := newCluster(t, 1) // takes it with the values that it has by itself
	c.apply(chart(t,
		"image.repository=registry.example/thruway", "image.tag=1.2.3", "image.pullPolicy=Always",
		"imagePullSecrets[0].name=registry", "apiServer[0]=https://10.0.0.1:6443", "config.sock=all",
		"config.metrics-address=0.0.0.0:10249", "nodeSelector.thruway=wanted", "maxUnavailable=1",
		"resources.limits.memory=1Gi", "metrics.service.enabled=true"), meta.DryRunAll)
}
