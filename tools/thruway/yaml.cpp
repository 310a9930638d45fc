// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/yaml.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace thruway::cli {
namespace {

/// True for text that no reader of YAML 1.1 or 1.2 takes for anything but a string.
bool is_plain(const std::string &text)
{
    static constexpr std::array<std::string_view, 9> words{"y", "n", "yes", "no", "on", "off", "true", "false", "null"};
    std::string lower = text;
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    const auto is_word = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '/'; };
    return !text.empty() && text.front() >= 'A' && std::isalpha(static_cast<unsigned char>(text.front())) &&
           std::ranges::all_of(text, is_word) && std::ranges::find(words, lower) == words.end();
}

/// What fits on a line: a string in JSON's quotes is one in YAML's.
std::string scalar(const Row &value)
{
    if (value.is_string() && is_plain(value.get_ref<const std::string &>()))
        return value.get<std::string>();
    return value.dump(-1, ' ', true, Row::error_handler_t::replace);
}

void write(const Row &value, size_t indent, std::string &text);

/// An element or a value, behind "- " or "key:" on a line of its own.
void write_below(const Row &value, size_t indent, std::string &text)
{
    if (value.is_structured() && !value.empty())
        return write(value, indent, text);
    text.append(indent, ' ');
    text += scalar(value) + '\n';
}

void write(const Row &value, size_t indent, std::string &text)
{
    if (value.is_array()) {
        for (const Row &element : value) {
            const size_t begin = text.size();
            write_below(element, indent + 2, text);
            text[begin + indent] = '-';
        }
        return;
    }
    for (const auto &[key, element] : value.items()) {
        text.append(indent, ' ');
        text += key + ':';
        if (!element.is_structured() || element.empty()) {
            text += ' ' + scalar(element) + '\n';
            continue;
        }
        text += '\n';
        write(element, indent + 2, text);
    }
}

} // namespace

std::string yaml_text(const Row &value)
{
    std::string text;
    write_below(value, 0, text);
    return text;
}

} // namespace thruway::cli
