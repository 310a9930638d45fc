// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/offload.h"

#include "agent/base/fd.h"

#include <cstring>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <vector>

namespace thruway::lab {
namespace {

/// Has the kernel carry out what stands in `command`, which begins with the number of it (linux/ethtool.h).
Result<> ethtool(const std::string &device, void *command)
{
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    device.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_data = static_cast<char *>(command);
    if (!socket || ::ioctl(socket.get(), SIOCETHTOOL, &request) != 0)
        return fail_errno("ethtool {}", device);
    return {};
}

/// A command whose answer is `size` bytes behind its header.
template<typename Header>
Result<std::vector<char>> ask_driver(const std::string &device, const Header &header, size_t size)
{
    std::vector<char> buffer(sizeof(Header) + size);
    std::memcpy(buffer.data(), &header, sizeof(Header));
    if (auto asked = ethtool(device, buffer.data()); !asked)
        return std::unexpected(asked.error());
    buffer.erase(buffer.begin(), buffer.begin() + sizeof(Header));
    return buffer;
}

} // namespace

Result<> set_offload(const std::string &device, Offload offload, bool on)
{
    ethtool_value value{};
    value.cmd = offload == Offload::checksum ? ETHTOOL_STXCSUM : ETHTOOL_SGRO;
    value.data = on;
    return ethtool(device, &value);
}

Result<std::map<std::string, uint64_t>> driver_counters(const std::string &device)
{
    ethtool_drvinfo info{};
    info.cmd = ETHTOOL_GDRVINFO;
    if (auto asked = ethtool(device, &info); !asked)
        return std::unexpected(asked.error());

    ethtool_gstrings strings{};
    strings.cmd = ETHTOOL_GSTRINGS;
    strings.string_set = ETH_SS_STATS;
    strings.len = info.n_stats;
    auto names = ask_driver(device, strings, size_t{info.n_stats} * ETH_GSTRING_LEN);
    if (!names)
        return std::unexpected(names.error());
    ethtool_stats stats{};
    stats.cmd = ETHTOOL_GSTATS;
    stats.n_stats = info.n_stats;
    auto values = ask_driver(device, stats, info.n_stats * sizeof(uint64_t));
    if (!values)
        return std::unexpected(values.error());

    std::map<std::string, uint64_t> counters;
    for (size_t i = 0; i < info.n_stats; i++) {
        const char *name = names->data() + i * ETH_GSTRING_LEN;
        uint64_t value = 0;
        std::memcpy(&value, values->data() + i * sizeof(value), sizeof(value));
        counters.emplace(std::string(name, ::strnlen(name, ETH_GSTRING_LEN)), value);
    }
    return counters;
}

} // namespace thruway::lab
