import { createContext, useContext } from "react";
import type { Dashboard, State } from "../dashboard";
import { useStore } from "../store";

export const DashboardContext = createContext<Dashboard | null>(null);

export function useDashboard(): Dashboard {
  const dashboard = useContext(DashboardContext);
  if (dashboard === null) throw new Error("useDashboard needs a DashboardContext around it");
  return dashboard;
}

/** One value of the page's state. */
export function useValue<T>(select: (state: State) => T): T {
  return useStore(useDashboard().store, select);
}
