/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs' maps by name, and the programs by number. */

#include "bpf/lib/maps.h"

#include "programs.h"

#include <stdlib.h>
#include <string.h>

int from_pod(struct __sk_buff *skb);
int to_pod(struct __sk_buff *skb);
int from_net(struct __sk_buff *skb);
int to_net(struct __sk_buff *skb);
int xdp_net(struct xdp_md *xdp);

#define NAMED(map) {#map, SHIM_OF(&map, &map)}

static const struct {
    const char *name;
    struct shim_map map;
} maps[] = {
    NAMED(frontends),
    NAMED(services),
    NAMED(slots),
    NAMED(backends),
    NAMED(endpoints),
    NAMED(node_addresses),
    NAMED(node_port_addresses),
    NAMED(layout),
    NAMED(addresses),
    NAMED(nodes),
    NAMED(gateways),
    NAMED(ifindexes),
    NAMED(nexthops),
    NAMED(generations),
    NAMED(totals),
    NAMED(flows4),
    NAMED(flows6),
    NAMED(drops),
    NAMED(vips),
    NAMED(service_cidrs),
    NAMED(fragments),
};

const struct shim_map *program_map(const char *name)
{
    for (unsigned i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
        if (strcmp(maps[i].name, name) == 0)
            return &maps[i].map;
    return NULL;
}

const struct shim_map *shim_map_at(const void *variable)
{
    for (unsigned i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
        if (maps[i].map.variable == variable)
            return &maps[i].map;
    abort(); /* not listed above */
}

int program_call(enum program program, void *ctx);

int program_call(enum program program, void *ctx)
{
    switch (program) {
    case PROGRAM_FROM_POD:
        return from_pod(ctx);
    case PROGRAM_TO_POD:
        return to_pod(ctx);
    case PROGRAM_FROM_NET:
        return from_net(ctx);
    case PROGRAM_TO_NET:
        return to_net(ctx);
    default:
        return xdp_net(ctx);
    }
}
