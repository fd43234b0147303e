// Calls a tool more often than it may with the official TypeScript client, and prints what it saw as JSON.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, mode] = process.argv.slice(2);
const statuses = [];
const watched = async (...request) => {
  const response = await fetch(...request);
  statuses.push([response.status, response.headers.get("retry-after")]);
  return response;
};
const client = new Client({ name: "independent-client", version: "1" }, { versionNegotiation: { mode } });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: watched }));
const look = () => client.callTool({ name: "worker_manager", arguments: { action: "list_workers" } });
const seen = [];
for (let call = 0; call < 3; call += 1) {
  const answer = await look().catch((error) => ({ code: error.code, message: String(error.message), data: error.data ?? null }));
  seen.push(answer);
}
console.log(JSON.stringify({ version: client.getNegotiatedProtocolVersion?.() ?? null, seen, statuses }));
await client.close();
