// SPDX-License-Identifier: Apache-2.0
#include "tools/cni/install.h"

#include "agent/base/file.h"

namespace thruway::cni {
namespace {

namespace fs = std::filesystem;

/// Runtimes take the first one by name; this comes before those that others usually bring.
constexpr const char *configuration_name = "05-thruway.conflist";
constexpr const char *configuration =
    R"({"cniVersion": "1.0.0", "name": "thruway", "plugins": [{"type": "thruway-cni"}]})"
    "\n";

Result<> put(const fs::path &from, const fs::path &to)
{
    const fs::path next = to.native() + ".new";
    std::error_code error;
    fs::create_directories(to.parent_path(), error);
    if (!error)
        fs::copy_file(from, next, fs::copy_options::overwrite_existing, error);
    if (!error)
        fs::rename(next, to, error);
    if (error)
        return fail_code(error.value(), "cannot copy {} to {}", from.native(), to.native());
    return {};
}

} // namespace

Result<> install(const fs::path &plugins, const fs::path &configurations)
{
    std::error_code error;
    const fs::path self = fs::read_symlink("/proc/self/exe", error);
    const fs::path libraries = self.native() + ".lib";
    for (const auto &library : fs::directory_iterator(libraries, error))
        if (auto copied = put(library.path(), plugins / libraries.filename() / library.path().filename()); !copied)
            return copied;
    if (auto copied = put(self, plugins / self.filename()); !copied)
        return copied;
    return replace_file(configurations / configuration_name, configuration);
}

} // namespace thruway::cni
