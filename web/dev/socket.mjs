/** The server half of a WebSocket for the development mock: text frames only, no extensions, small messages. */

import { createHash } from "node:crypto";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Answers the upgrade and calls `onText` for each text message; returns `{ send, close, destroy }`. */
export function accept(request, socket, onText, onClose) {
  const key = createHash("sha1")
    .update(request.headers["sec-websocket-key"] + GUID)
    .digest("base64");
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`,
  );
  let held = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    held = Buffer.concat([held, chunk]);
    for (let frame = parse(held); frame !== null; frame = parse(held)) {
      held = held.subarray(frame.size);
      if (frame.opcode === 8) socket.end();
      if (frame.opcode === 1) onText(frame.payload.toString());
    }
  });
  socket.on("close", onClose);
  socket.on("error", onClose);
  return {
    send: (value) => socket.writable && socket.write(encode(1, Buffer.from(JSON.stringify(value)))),
    destroy: () => socket.destroy(),
  };
}

function parse(bytes) {
  if (bytes.length < 2) return null;
  let length = bytes[1] & 127;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return null;
    length = bytes.readUInt16BE(2);
    at = 4;
  }
  const size = at + 4 + length;
  if (bytes.length < size) return null;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, size).map((byte, index) => byte ^ mask[index % 4]));
  return { opcode: bytes[0] & 15, payload, size };
}

function encode(opcode, payload) {
  if (payload.length < 126) return Buffer.concat([Buffer.from([128 | opcode, payload.length]), payload]);
  const head = Buffer.alloc(payload.length < 65536 ? 4 : 10);
  head[0] = 128 | opcode;
  head[1] = payload.length < 65536 ? 126 : 127;
  if (payload.length < 65536) head.writeUInt16BE(payload.length, 2);
  else head.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([head, payload]);
}
