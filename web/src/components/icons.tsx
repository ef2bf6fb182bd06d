import type { JSX, ReactNode } from "react";

function Icon({ children }: { children: ReactNode }): JSX.Element {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const SearchIcon = (): JSX.Element => (
  <Icon>
    <circle cx="7" cy="7" r="4.5" />
    <path d="m10.5 10.5 3.5 3.5" />
  </Icon>
);

export const SunIcon = (): JSX.Element => (
  <Icon>
    <circle cx="8" cy="8" r="3" />
    <path d="M8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.1 1.1M11.9 11.9 13 13M13 3l-1.1 1.1M4.1 11.9 3 13" />
  </Icon>
);

export const MoonIcon = (): JSX.Element => (
  <Icon>
    <path d="M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1Z" />
  </Icon>
);

export const ChevronIcon = (): JSX.Element => (
  <Icon>
    <path d="m4 6 4 4 4-4" />
  </Icon>
);

export const TapeIcon = (): JSX.Element => (
  <Icon>
    <rect x="1.5" y="2.5" width="13" height="11" rx="2" />
    <path d="M10 2.5v11M11.8 5.5h1M11.8 8h1M11.8 10.5h1" />
  </Icon>
);

export const BookIcon = (): JSX.Element => (
  <Icon>
    <path d="M2 3h8M2 5.5h5M2 10.5h6M2 13h11M2 8h12" />
  </Icon>
);

export const KeyIcon = (): JSX.Element => (
  <Icon>
    <rect x="1.5" y="4" width="13" height="8.5" rx="1.5" />
    <path d="M4 6.8h.8M7.6 6.8h.8M11.2 6.8h.8M4.6 9.8h6.8" />
  </Icon>
);

export function Brand(): JSX.Element {
  return (
    <span className="brand">
      <svg viewBox="0 0 24 24" aria-hidden="true" focusable="false">
        <path className="brand-tape" d="M1 17.5h22" />
        <path className="brand-up" d="M8 3.5v17" />
        <rect className="brand-up" x="5.8" y="7" width="4.4" height="9" rx="1" />
        <path className="brand-down" d="M16 2v15" />
        <rect className="brand-down" x="13.8" y="5" width="4.4" height="7" rx="1" />
      </svg>
      <span className="brand-name">tapewick</span>
    </span>
  );
}
