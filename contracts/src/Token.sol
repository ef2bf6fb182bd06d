// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

/// What is asked of a token: how many decimals its amounts have. For tests.
contract Token {
    uint8 public immutable decimals;

    constructor(uint8 digits) {
        decimals = digits;
    }
}
