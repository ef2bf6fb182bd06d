import { type JSX, type ReactNode, useEffect, useRef } from "react";
import { useDashboard } from "./context";

/** A native modal: the browser keeps the focus inside and gives it back afterwards. */
export function Modal({
  label,
  className,
  children,
}: {
  label: string;
  className: string;
  children: ReactNode;
}): JSX.Element {
  const { store } = useDashboard();
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    element.current?.showModal?.();
  }, []);
  const close = (): void => store.set({ dialog: null });
  return (
    // Esc closes a native dialog; the click is for its backdrop
    <dialog
      ref={element}
      className={className}
      aria-label={label}
      onClose={close}
      onClick={(event) => event.target === element.current && close()}
    >
      {children}
    </dialog>
  );
}
