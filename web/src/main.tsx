import { createRoot } from "react-dom/client";
import { App } from "./components/App";
import { Dashboard } from "./dashboard";
import { reflect } from "./reflect";
import "./theme.css";
import "./styles/header.css";
import "./styles/main.css";
import "./styles/book.css";
import "./styles/dialogs.css";
import "./styles/narrow.css";

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has lost its #root element");
const dashboard = new Dashboard();
reflect(dashboard, root);
dashboard.start();
createRoot(root).render(<App dashboard={dashboard} />);
