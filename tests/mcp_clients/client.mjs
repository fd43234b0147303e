// Lists and calls the tools of a gateway with the official TypeScript client, and prints what it got as JSON.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, mode] = process.argv.slice(2);
const client = new Client({ name: "independent-client", version: "1" }, { versionNegotiation: { mode } });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const progress = [];
const { tools } = await client.listTools();
const scheduled = await client.callTool(
  { name: "scheduler", arguments: { kind: "steps", wait: 20 } },
  { onprogress: (each) => progress.push(each.progress) },
);
const listed = await client.callTool({ name: "worker_manager", arguments: { action: "list_workers" } });
const refused = await client.callTool({ name: "scheduler", arguments: { kind: "steps", colour: "red" } });
const unknown = await client.callTool({ name: "nothing", arguments: {} }).catch((error) => error.code);
const { resources } = await client.listResources();
const read = await client.readResource({ uri: `job://${scheduled.structuredContent.jobId}` });
const { prompts } = await client.listPrompts();
console.log(
  JSON.stringify({
    version: client.getNegotiatedProtocolVersion?.() ?? null,
    instructions: client.getInstructions(),
    tools, scheduled, listed, refused, unknown, progress, resources, read, prompts,
  }),
);
await client.close();
