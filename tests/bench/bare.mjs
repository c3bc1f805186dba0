// What OpenClaw's own gateway can't be cheaper than: Node, and a route of its HTTP server.
//
//     bare.mjs <port>
import { createServer } from "node:http";

const live = '{"ok":true,"status":"live"}';
createServer((_, response) => {
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": live.length });
  response.end(live);
}).listen(Number(process.argv[2]), "127.0.0.1");
