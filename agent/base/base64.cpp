// SPDX-License-Identifier: Apache-2.0
#include "agent/base/base64.h"

#include <cstdint>

namespace thruway {
namespace {

constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

} // namespace

std::string encode_base64(std::string_view bytes)
{
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
        for (size_t j = 0; j < 4; j++)
            out += i + j > bytes.size() ? '=' : alphabet[bits >> (18 - 6 * j) & 0x3f];
    }
    return out;
}

std::optional<std::string> decode_base64(std::string_view text)
{
    std::string out;
    uint32_t bits = 0;
    size_t digits = 0;
    size_t padding = 0;
    for (const char c : text) {
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
            continue;
        const size_t digit = c == '=' ? 0 : alphabet.find(c);
        if (digit == std::string_view::npos || (padding > 0 && c != '='))
            return std::nullopt;
        padding += c == '=';
        bits = bits << 6 | static_cast<uint32_t>(digit);
        if (++digits % 4 == 0)
            for (const unsigned shift : {16U, 8U, 0U})
                out += static_cast<char>(bits >> shift & 0xff);
    }
    if (digits % 4 != 0 || padding > 2)
        return std::nullopt;
    out.resize(out.size() - padding);
    return out;
}

} // namespace thruway
