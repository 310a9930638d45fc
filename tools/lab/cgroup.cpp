// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/cgroup.h"

#include <fstream>
#include <sstream>
#include <string>

namespace thruway::lab {
namespace {

/// A line of mountinfo: "ID PARENT DEVICE ROOT MOUNT-POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS".
std::string cgroup2_mount_point(const std::string &line)
{
    if (line.find(" - cgroup2 ") == std::string::npos)
        return {};
    std::istringstream words(line);
    std::string word;
    for (int i = 0; i < 5; i++)
        words >> word;
    return word;
}

} // namespace

Result<std::filesystem::path> lab_cgroup(std::string_view lab)
{
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        if (const std::string point = cgroup2_mount_point(line); !point.empty())
            return std::filesystem::path(point) / fmt::format("thruway-lab-{}", lab);
    }
    return fail("no cgroup2 file system is mounted");
}

Result<> remove_cgroup(const std::filesystem::path &path)
{
    std::error_code error;
    // Only the folders: the files in a group go with it.
    for (const auto &entry : std::filesystem::directory_iterator(path, error)) {
        if (!entry.is_directory())
            continue;
        if (auto removed = remove_cgroup(entry.path()); !removed)
            return removed;
    }
    if (error == std::errc::no_such_file_or_directory)
        return {};
    if (std::filesystem::remove(path, error); error)
        return fail_code(error.value(), "cannot remove control group {}", path.native());
    return {};
}

} // namespace thruway::lab
