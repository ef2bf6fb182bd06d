// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

/// An order book without a market: it keeps orders, and tells of them as two generations of contracts did.
/// For tests. Every function that tells takes `old`: whether the older events are emitted.
contract Orders {
    struct Order {
        uint256 id;
        address user;
        address tokenIn;
        address tokenOut;
        uint256 amountIn;
        uint256 targetPrice;
        uint256 minAmountOut;
        uint8 orderType;
        bool isLong;
        bool executed;
        uint256 createdAt;
        bool selfExecutable;
    }

    event OrderCreated(uint256 indexed orderId, address indexed user, address tokenIn, address tokenOut, uint256 amountIn);
    event OrderExecuted(uint256 indexed orderId, address indexed executor, uint256 amountOut);
    event OrderCancelled(uint256 indexed orderId, address indexed user);
    event OrderModified(uint256 indexed orderId, uint256 newTargetPrice, uint256 newMinAmountOut);

    event OrderCreated(
        uint256 indexed orderId,
        address indexed user,
        address tokenIn,
        address tokenOut,
        uint256 amountIn,
        uint256 targetPrice,
        uint8 orderType
    );
    event OrderExecuted(uint256 indexed orderId, address indexed executor, uint256 amountOut, bool selfExecution);
    event OrderCancelled(uint256 indexed orderId, address indexed user, uint256 timestamp);
    event OrderModified(
        uint256 indexed orderId, uint256 oldTargetPrice, uint256 newTargetPrice, uint256 newMinAmountOut
    );

    mapping(uint256 => Order) private orders;

    function create(
        bool old,
        uint256 id,
        address tokenIn,
        address tokenOut,
        uint256 amountIn,
        uint256 targetPrice,
        uint256 minAmountOut,
        uint8 orderType
    ) external {
        orders[id] = Order(
            id,
            msg.sender,
            tokenIn,
            tokenOut,
            amountIn,
            targetPrice,
            minAmountOut,
            orderType,
            true,
            false,
            block.timestamp,
            false
        );
        if (old) emit OrderCreated(id, msg.sender, tokenIn, tokenOut, amountIn, targetPrice, orderType);
        else emit OrderCreated(id, msg.sender, tokenIn, tokenOut, amountIn);
    }

    function modify(bool old, uint256 id, uint256 targetPrice, uint256 minAmountOut) external {
        uint256 before = orders[id].targetPrice;
        orders[id].targetPrice = targetPrice;
        orders[id].minAmountOut = minAmountOut;
        if (old) emit OrderModified(id, before, targetPrice, minAmountOut);
        else emit OrderModified(id, targetPrice, minAmountOut);
    }

    function execute(bool old, uint256 id, uint256 amountOut) external {
        orders[id].executed = true;
        if (old) emit OrderExecuted(id, msg.sender, amountOut, false);
        else emit OrderExecuted(id, msg.sender, amountOut);
    }

    function cancel(bool old, uint256 id) external {
        if (old) emit OrderCancelled(id, msg.sender, block.timestamp);
        else emit OrderCancelled(id, msg.sender);
    }

    function getOrder(uint256 id) external view returns (Order memory) {
        return orders[id];
    }

    /// A log whose first topic says more than it holds.
    function misfit(bytes32 topic, bytes calldata data) external {
        bytes memory held = data;
        assembly {
            log1(add(held, 32), mload(held), topic)
        }
    }
}
