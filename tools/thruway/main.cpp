// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/app.h"

#include <iostream>

int main(int argc, char **argv)
{
    std::ios::sync_with_stdio(false);
    return thruway::cli::run(argc, argv, std::cout, std::cerr);
}
