// SPDX-License-Identifier: Apache-2.0
#include "agent/file/manifest.h"

#include "agent/base/yaml.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace thruway {

bool is_manifest(std::string_view file_name)
{
    static constexpr std::array<std::string_view, 3> endings{".yaml", ".yml", ".json"};
    return !file_name.starts_with('.') &&
           std::ranges::any_of(endings, [&](std::string_view ending) { return file_name.ends_with(ending); });
}

Result<std::vector<Decoded>> read_manifest(Decoder &decoder, std::string_view file_name, std::string text)
{
    constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
    if (text.starts_with(byte_order_mark))
        text.erase(0, byte_order_mark.size());
    if (file_name.ends_with(".json"))
        return decoder.decode(std::move(text));

    std::vector<Decoded> all;
    const auto read = yaml_to_json(text, [&](size_t line, std::string json) -> Result<> {
        auto objects = decoder.decode(std::move(json), line);
        if (!objects)
            return std::unexpected(objects.error());
        std::ranges::move(*objects, std::back_inserter(all));
        return {};
    });
    if (!read)
        return std::unexpected(read.error());
    return all;
}

} // namespace thruway
