// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/datapath/nexthops.h"
#include "agent/datapath/programs.h"
#include "agent/ipam/pool.h"
#include "agent/node/host.h"
#include "agent/state/objects.h"

#include <map>
#include <string>
#include <vector>

namespace thruway {

/// A pod's interface as it was given out: what has to be known again after a restart.
struct PodInterface {
    std::string container; ///< the runtime's id of the sandbox
    std::string interface; ///< name inside the pod
    ObjectName pod;
    std::string device; ///< name on the host's side
    unsigned ifindex = 0;
    Mac mac{};      ///< the pod's
    Mac host_mac{}; ///< of the host's side, which is the pod's gateway
    std::vector<Address> addresses;
};

/// Pod interfaces as files, one each, so that giving out one costs one small write. A file is complete or not there.
class PodStore {
public:
    explicit PodStore(std::string folder) : folder_(std::move(folder)) {}

    /// All that can be read; what cannot is told in `complaints` and left where it is.
    Result<std::vector<PodInterface>> load(std::vector<std::string> &complaints) const;
    Result<> save(const PodInterface &pod) const;
    void remove(const PodInterface &pod) const;

    /// Deletes the interfaces of all pods: they lead nowhere without a datapath.
    Result<> delete_links() const;

private:
    [[nodiscard]] std::string path(const PodInterface &pod) const;

    std::string folder_;
};

/// What the CNI plugin asks for: it has made the interface pair, the agent connects it.
struct PodRequest {
    std::string container;
    std::string interface;
    ObjectName pod;
    std::string device;
    Mac mac{};
};

/// The pods of this node: addresses, datapath endpoints, routes, attachments.
class Pods {
public:
    Pods(Datapath &datapath, NextHopTables &nexthops, HostNetwork &host, PodStore store);

    /// Takes up the pods of the run before. Those whose interface is gone are forgotten.
    Result<> restore();

    void set_ranges(const std::vector<Prefix> &ranges) { pool_.set_ranges(ranges); }

    /// Gives the pod addresses and connects its interface. Asking again for the same interface gives the same answer.
    /// On failure nothing is left behind.
    Result<PodInterface> add(const PodRequest &request);

    /// Disconnects the pod and removes its interface. One that is not known is no error.
    Result<> remove(const std::string &container, const std::string &interface);

    /// Attaches the datapath's programs to all pods, in the place of others of ours.
    Result<> attach();

    /// Follows changes of the host's addresses.
    void refresh();

    [[nodiscard]] const std::map<std::pair<std::string, std::string>, PodInterface> &all() const { return pods_; }

private:
    Result<std::vector<Address>> allocate(const PodRequest &request);
    Result<> connect(const PodInterface &pod);
    Result<> place(const PodInterface &pod);
    void disconnect(const PodInterface &pod);
    [[nodiscard]] NextHop hop_to(const PodInterface &pod) const;

    Datapath *datapath_;
    NextHopTables *nexthops_;
    HostNetwork *host_;
    PodStore store_;
    AddressPool pool_;
    std::map<std::pair<std::string, std::string>, PodInterface> pods_;
};

} // namespace thruway
