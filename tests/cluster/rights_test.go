// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAnAgentNamesTheRuleThatItsRoleLacksAndGoesOnWhenItHasIt(t *testing.T) {
	c := newCluster(t, 1)
	roles := c.client.RbacV1().ClusterRoles()
	role, err := roles.Get(background, agentAccount, meta.GetOptions{})
	must(t, err)
	whole := role.Rules
	role.Rules = slices.DeleteFunc(slices.Clone(whole), func(rule rbac.PolicyRule) bool {
		return slices.Contains(rule.Resources, "endpointslices")
	})
	role, err = roles.Update(background, role, meta.UpdateOptions{})
	must(t, err)

	ready := make(chan error)
	go func() { // it waits until the agent is ready, which needs the rule
		_, err := c.tryLab("agent restart", "node1")
		ready <- err
	}()
	eventually(t, patience, "the log names the rule", func() error {
		log, err := os.ReadFile(c.agentLog("node1"))
		must(t, err)
		const rule = `{apiGroups: ["discovery.k8s.io"], resources: [endpointslices], verbs: [list, watch]}`
		if !strings.Contains(string(log), "the agent's ClusterRole needs the rule "+rule) {
			return errors.New("it does not")
		}
		return nil
	})

	role.Rules = whole
	_, err = roles.Update(background, role, meta.UpdateOptions{})
	must(t, err)
	must(t, <-ready)
}
