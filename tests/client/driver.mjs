// Drives the official client for a test: node driver.mjs URL OPTIONS
// OPTIONS is one JSON object, passed to the client as it is. Requests come as JSON lines on stdin,
// {"method": …, "params": …, "timeoutMs": …}; the end of stdin ends the client. What happens goes to
// stdout, one JSON line each, named by "kind": hello, event, gap, answer, error, close, refused, paused.
import { createInterface } from "node:readline";
import { GatewayClient } from "@openclaw/gateway-client";

const [url, options] = process.argv.slice(2);
const say = (kind, what) => process.stdout.write(`${JSON.stringify({ kind, ...what })}\n`);
const plain = ({ message, code, details, retryable, retryAfterMs }) =>
  ({ message, code, details, retryable, retryAfterMs });

const client = new GatewayClient({
  url,
  clientVersion: "2026.9.1",
  hostDeps: { logDebug() {}, logError() {} },
  onHelloOk: (hello) => say("hello", { hello }),
  onEvent: (event) => say("event", { event }),
  onGap: (gap) => say("gap", { gap }),
  onConnectError: (error) => say("refused", { error: plain(error) }),
  onReconnectPaused: (why) => say("paused", { why }),
  onClose: (code, reason) => say("close", { code, reason }),
  ...JSON.parse(options ?? "{}"),
});
client.start();
for await (const line of createInterface({ input: process.stdin })) {
  const { method, params, timeoutMs } = JSON.parse(line);
  client.request(method, params, { timeoutMs }).then(
    (payload) => say("answer", { method, payload }),
    (error) => say("error", { method, error: plain(error) }),
  );
}
await client.stopAndWait();
process.exit(0);
