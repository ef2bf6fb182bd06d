// Compile src/*.sol into build/*.json, offline. `--check`: change nothing, fail where the committed files differ.
import { createRequire } from "node:module";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const solc = createRequire(import.meta.url)("solc");
const here = dirname(fileURLToPath(import.meta.url));
const files = readdirSync(join(here, "src")).filter((name) => name.endsWith(".sol")).sort();
const input = {
  language: "Solidity",
  sources: Object.fromEntries(files.map((name) => [name, { content: readFileSync(join(here, "src", name), "utf8") }])),
  settings: {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "paris",
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.methodIdentifiers"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const said = (output.errors ?? []).map((error) => error.formattedMessage);
if (said.length) {
  console.error(said.join("\n"));
  process.exit(1);
}
let differing = 0;
for (const contracts of Object.values(output.contracts)) {
  for (const [name, { abi, evm }] of Object.entries(contracts)) {
    const made = { contract: name, compiler: solc.version(), abi, selectors: evm.methodIdentifiers, bytecode: `0x${evm.bytecode.object}` };
    const text = `${JSON.stringify(made, null, 1)}\n`;
    const path = join(here, "build", `${name}.json`);
    if (!process.argv.includes("--check")) writeFileSync(path, text);
    else if (readFileSync(path, "utf8") !== text) {
      console.error(`contracts/build/${name}.json is not what contracts/src compiles to: node contracts/compile.mjs`);
      differing += 1;
    }
  }
}
process.exit(differing ? 1 : 0);
